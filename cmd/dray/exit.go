package main

import (
	"errors"
	"fmt"
	"strings"
)

// Exit codes of run. docs/operating.md has the same table.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitUnreachable = 3
	exitRejected    = 4
)

// exitCodes explains the exit codes, in one line each.
func exitCodes() string {
	var b strings.Builder
	for code, meaning := range []string{
		exitOK:          "done",
		exitFailed:      "refused or failed; standard error says why",
		exitUsage:       "the command line was not understood",
		exitUnreachable: "no running dray could be asked",
		exitRejected:    "done, and the answer is no: the image would be rejected, or a test of a policy failed",
	} {
		fmt.Fprintf(&b, "  %d  %s\n", code, meaning)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// errRejected reports that the command completed with a negative result.
var errRejected = errors.New("rejected")
