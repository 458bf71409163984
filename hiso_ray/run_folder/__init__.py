"""What is on disk: the run folder, its ledger, snapshots, tables and faults."""
