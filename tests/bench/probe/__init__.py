"""What a machine is: measured with torch alone, so that nothing of ours can be at fault."""
