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
		exitOK:          "success",
		exitFailed:      "error; see standard error",
		exitUsage:       "usage error",
		exitUnreachable: "no running dray could be reached",
		exitRejected:    "the image would be rejected, or a policy test failed",
	} {
		fmt.Fprintf(&b, "  %d  %s\n", code, meaning)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// errRejected reports that the command completed with a negative result.
var errRejected = errors.New("rejected")
