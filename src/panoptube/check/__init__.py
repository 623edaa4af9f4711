"""What is wrong in labels, and where. Works on files and never imports torch."""
