"""Durable background work: jobs with leases."""
