package config

import (
	"fmt"
	"strings"
)

// suggestion returns a hint at the known key that is most similar to the unknown one, or "" if
// every known key differs by more than two letters. It ignores case, dashes and underscores.
func suggestion[V any](key string, known map[string]V) string {
	separators := strings.NewReplacer("-", "", "_", "")
	plain := strings.ToLower(separators.Replace(key))
	best, least := "", 3
	for name := range known {
		d := editDistance(plain, strings.ToLower(separators.Replace(name)))
		if d < least || d == least && best != "" && name < best {
			best, least = name, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %s?", best)
}

// editDistance returns the least number of insertions, deletions and replacements that turn a into
// b.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
