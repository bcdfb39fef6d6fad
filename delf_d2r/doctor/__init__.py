"""Inspects what runs leave on the disk: findings, each with a place and a remedy; nothing is changed."""
