"""What a given model is doing: curvature and gradient noise of any JAX or PyTorch model, each number with its error."""
