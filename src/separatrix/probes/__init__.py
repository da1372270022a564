"""What a given model is doing: measurements on any differentiable model, with their errors."""
