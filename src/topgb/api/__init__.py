"""The public Python API: what `import topgb` gives."""
