package main

import (
	"errors"
	"fmt"
	"strings"
)

// Exit codes of run. docs/operating.md has the same table.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
	exitAbsent = 3
	exitNo     = 4
)

// exitCodes is what the exit codes mean, a line for each.
func exitCodes() string {
	var b strings.Builder
	for code, meaning := range []string{
		exitOK:     "done",
		exitFailed: "refused or failed; standard error says why",
		exitUsage:  "the command line was not understood",
		exitAbsent: "no running dray could be asked",
		exitNo:     "done, and the answer is no: the image would be rejected, or a test of a policy failed",
	} {
		fmt.Fprintf(&b, "  %d  %s\n", code, meaning)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// errRejected says that everything was done and that the answer is no.
var errRejected = errors.New("rejected")
