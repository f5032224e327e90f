"""What is wrong in the data: files, duplicates, leaks and labels."""
