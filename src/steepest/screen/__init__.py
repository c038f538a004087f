"""What is drawn in a terminal while something goes on, by the command line and for Python."""
