"""Where a run is shown besides its folder: TensorBoard, MLflow, Weights & Biases."""
