"""What is checked on the way in and out, each in a module of its own."""
