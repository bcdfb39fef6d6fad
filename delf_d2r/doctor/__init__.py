"""Inspects artefacts, runs and indexes on disk: findings, each with a place and a remedy. Changes nothing."""
