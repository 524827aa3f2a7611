"""Selection of training pairs: scores of pairs, and which are kept."""
