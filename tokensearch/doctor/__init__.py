"""Whether this machine is fit to measure, and which timm models can follow a policy."""
