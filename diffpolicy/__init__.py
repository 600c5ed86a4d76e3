"""Diffusion policies for robot control."""
