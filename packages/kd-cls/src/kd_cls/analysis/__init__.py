"""Analyses of trained classifiers: tables and pictures, by `kd-cls-analyse`."""
