"""A ledger, reported: sentences, blocks, waterfalls, flame graphs."""
