package e2e

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
)

// result says whether one client can do one thing through dray.
type result struct {
	Client  string `json:"client"`
	Version string `json:"version"`
	Does    string `json:"does"`
	// Operation is the column of the table in docs/clients.md, where it is one.
	Operation operation `json:"operation,omitempty"`
	Outcome   string    `json:"outcome"` // pass, fail or skip
	Test      string    `json:"test"`
}

// results are what all tests found; TestMain writes them in the end.
type results struct {
	mu   sync.Mutex
	rows []result // guarded by mu
}

var matrix results

// operation is a column of the table in docs/clients.md.
type operation string

const (
	opPull   operation = "pull"
	opPush   operation = "push"
	opAgain  operation = "push again"
	opIndex  operation = "index"
	opMount  operation = "mount"
	opAttach operation = "attach"
	opCache  operation = "build cache"
	opDelete operation = "delete"
	opOutage operation = "outage"
)

var operations = []operation{opPull, opPush, opAgain, opIndex, opMount, opAttach, opCache, opDelete, opOutage}

// row runs what a client does as a subtest, and notes how it ended.
func row(t *testing.T, client, version, does string, body func(t *testing.T)) bool {
	t.Helper()
	return operation("").row(t, client, version, does, body)
}

// row is row for one of the operations.
func (op operation) row(t *testing.T, client, version, does string, body func(t *testing.T)) bool {
	t.Helper()
	return t.Run(does, func(t *testing.T) {
		t.Cleanup(func() {
			outcome := "pass"
			switch {
			case t.Failed():
				outcome = "fail"
			case t.Skipped():
				outcome = "skip"
			}
			matrix.mu.Lock()
			defer matrix.mu.Unlock()
			matrix.rows = append(matrix.rows, result{client, version, does, op, outcome, t.Name()})
		})
		body(t)
	})
}

// write puts the results into a JSON file, sorted, one object a line; it does nothing without a
// name.
func (r *results) write(name string) error {
	if name == "" {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	slices.SortFunc(r.rows, func(a, b result) int { return cmp.Or(cmp.Compare(a.Client, b.Client), cmp.Compare(a.Test, b.Test)) })
	out := []byte("[\n")
	for i, row := range r.rows {
		line, err := json.Marshal(row)
		if err != nil {
			return fmt.Errorf("write results: %w", err)
		}
		if i > 0 {
			out = append(out, ",\n"...)
		}
		out = append(append(out, "  "...), line...)
	}
	return os.WriteFile(name, append(out, "\n]\n"...), 0o644)
}
