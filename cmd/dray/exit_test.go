package main

import "dray/cmd/dray/program"

// Exit codes of run.
const (
	exitOK          = program.OK
	exitFailed      = program.Failed
	exitUsage       = program.Usage
	exitUnreachable = program.Unreachable
	exitRejected    = program.Rejected
)
