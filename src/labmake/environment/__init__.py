"""What a step's result depends on besides its inputs: the project's code and the software around it."""
