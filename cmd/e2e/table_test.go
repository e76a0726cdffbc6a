package e2e

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The table lies between these lines of docs/clients.md.
const (
	tableBegins = "<!-- what clients do, found by the tests -->\n"
	tableEnds   = "<!-- -->\n"
)

// tableRow is what one client can do.
type tableRow struct {
	version string
	does    map[operation]bool
}

// checkTable compares the table with the results; update writes them into it instead. Unless all
// tests ran, missing results are allowed.
func (r *results) checkTable(file string, update, all bool) error {
	before, table, after, err := cutTable(file, tableBegins)
	if err != nil {
		return err
	}
	said := parseTable(table)
	found := r.table()
	if update {
		for client, row := range found {
			if old, ok := said[client]; ok {
				maps.Copy(old.does, row.does)
				row.does = old.does
			}
			said[client] = row
		}
		return os.WriteFile(file, []byte(before+printTable(said)+after), 0o644)
	}
	var errs []error
	for client, row := range found {
		for _, op := range operations {
			passed, ran := row.does[op]
			if says := said[client].does[op]; ran && says != passed || all && says && !ran {
				errs = append(errs, fmt.Errorf("%s says of %s and %s: %t, the tests found: %t; go test ./cmd/e2e -update writes the table", file, client, op, says, passed))
			}
		}
	}
	return errors.Join(errs...)
}

// cutTable cuts a page before and after the rows of the table that lies between the line begins and
// tableEnds.
func cutTable(file, begins string) (before, table, after string, err error) {
	page, err := os.ReadFile(file)
	if err != nil {
		return "", "", "", err
	}
	before, rest, ok := strings.Cut(string(page), begins)
	table, after, ok2 := strings.Cut(rest, tableEnds)
	if !ok || !ok2 {
		return "", "", "", fmt.Errorf("%s has no table after %s", file, begins)
	}
	return before + begins, table, tableEnds + after, nil
}

var versionNumber = regexp.MustCompile(`\d+\.\d+(\.\d+)?`)

// table returns the results, without skipped tests.
func (r *results) table() map[string]tableRow {
	r.mu.Lock()
	defer r.mu.Unlock()
	found := map[string]tableRow{}
	for _, row := range r.rows {
		if row.Operation == "" || row.Outcome == "skip" {
			continue
		}
		t, ok := found[row.Client]
		if !ok {
			t = tableRow{versionNumber.FindString(row.Version), map[operation]bool{}}
			found[row.Client] = t
		}
		passed, ran := t.does[row.Operation]
		t.does[row.Operation] = row.Outcome == "pass" && (passed || !ran)
	}
	return found
}

func parseTable(text string) map[string]tableRow {
	said := map[string]tableRow{}
	for i, line := range strings.Split(strings.TrimSpace(text), "\n") {
		cells := strings.Split(strings.Trim(line, "| "), "|")
		if i < 2 || len(cells) != len(operations)+2 { // the head
			continue
		}
		row := tableRow{strings.TrimSpace(cells[1]), map[operation]bool{}}
		for j, op := range operations {
			row.does[op] = strings.TrimSpace(cells[j+2]) == "yes"
		}
		said[strings.TrimSpace(cells[0])] = row
	}
	return said
}

func printTable(rows map[string]tableRow) string {
	var b strings.Builder
	b.WriteString("| Client | Version |")
	for _, op := range operations {
		fmt.Fprintf(&b, " %s |", op)
	}
	b.WriteString("\n|---|---|" + strings.Repeat("---|", len(operations)) + "\n")
	for _, client := range slices.SortedFunc(maps.Keys(rows), func(a, b string) int { return strings.Compare(strings.ToLower(a), strings.ToLower(b)) }) {
		fmt.Fprintf(&b, "| %s | %s |", client, rows[client].version)
		for _, op := range operations {
			cell := "–"
			if rows[client].does[op] {
				cell = "yes"
			}
			fmt.Fprintf(&b, " %s |", cell)
		}
		b.WriteString("\n")
	}
	return b.String()
}

func TestTable(t *testing.T) {
	file := filepath.Join(t.TempDir(), "clients.md")
	write(t, file, []byte("before\n"+tableBegins+tableEnds+"after\n"))
	found := func(outcomes ...string) *results {
		r := &results{}
		for i, outcome := range outcomes {
			r.rows = append(r.rows, result{Client: "crane", Version: "v1.2.3", Operation: operations[i], Outcome: outcome})
		}
		return r
	}
	if err := found("pass", "skip", "fail").checkTable(file, true, true); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(file)
	if want := "| crane | 1.2.3 | yes |" + strings.Repeat(" – |", len(operations)-1) + "\n" + tableEnds + "after\n"; err != nil || !strings.HasSuffix(string(page), want) {
		t.Fatalf("the page is\n%s\nand ends not with\n%s, %v", page, want, err)
	}
	for _, c := range []struct {
		found *results
		all   bool
		fits  bool
	}{
		{found("pass"), true, true},
		{found("pass", "skip", "fail"), true, true},
		{found("fail"), false, false},
		{found("pass", "pass"), false, false},
		{found("skip", "fail"), false, true},
		{found("skip", "fail"), true, false},
		{found("skip"), true, true}, // the client is not here
	} {
		if err := c.found.checkTable(file, false, c.all); (err == nil) != c.fits {
			t.Errorf("%+v, all: %t: %v", c.found.rows, c.all, err)
		}
	}
}
