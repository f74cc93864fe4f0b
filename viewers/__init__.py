"""What people look at in Scipion."""
