package bundle

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"dray/mirror/admin/api"
)

// [names] replaces addresses and names of clients by numbers. The same client has the same number
// in all files of an archive.
type names struct{ addresses, people map[string]string }

func newNames() *names {
	return &names{addresses: map[string]string{}, people: map[string]string{}}
}

func number(of map[string]string, kind, name string) string {
	if name == "" {
		return ""
	}
	if of[name] == "" {
		of[name] = fmt.Sprintf("%s-%d", kind, len(of)+1)
	}
	return of[name]
}

// users replaces the names of users in rules of a configuration. It keeps the pattern *.
func (n *names) users(text []byte) ([]byte, error) {
	var root yaml.Node
	if err := yaml.Unmarshal(text, &root); err != nil {
		return nil, err
	}
	var walk func(*yaml.Node)
	walk = func(node *yaml.Node) {
		for i, child := range node.Content {
			if node.Kind == yaml.MappingNode && i%2 == 1 && node.Content[i-1].Value == "users" {
				for _, user := range child.Content {
					if user.Value != "*" {
						user.Value = number(n.people, "user", user.Value)
					}
				}
				continue
			}
			walk(child)
		}
	}
	walk(&root)
	var out bytes.Buffer
	to := yaml.NewEncoder(&out)
	to.SetIndent(2)
	to.CompactSeqIndent()
	if err := to.Encode(&root); err != nil {
		return nil, err
	}
	return out.Bytes(), to.Close()
}

// texts returns a function that replaces the known addresses and names in a text, such as an error.
func (n *names) texts() func(string) string {
	numbers := maps.Clone(n.people)
	maps.Copy(numbers, n.addresses)
	var known []string
	for name := range numbers {
		known = append(known, name)
	}
	slices.SortFunc(known, func(a, b string) int { return len(b) - len(a) }) // the longest first
	for i, name := range known {
		known[i] = regexp.QuoteMeta(name)
		if word(name[0]) { // do not replace the name within a longer word
			known[i] = `\b` + known[i]
		}
		if word(name[len(name)-1]) {
			known[i] += `\b`
		}
	}
	pattern := regexp.MustCompile(strings.Join(known, "|"))
	return func(text string) string {
		return pattern.ReplaceAllStringFunc(text, func(name string) string { return numbers[name] })
	}
}

// word reports whether a regular expression takes c for a part of a word.
func word(c byte) bool {
	return c == '_' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

// live replaces the clients of pulls and pushes.
func (n *names) live(text []byte) ([]byte, error) {
	var all api.Live
	if err := json.Unmarshal(text, &all); err != nil {
		return nil, err
	}
	var entries []*api.LiveEntry
	for i := range all.Pulls {
		entries = append(entries, &all.Pulls[i].LiveEntry)
	}
	for i := range all.Pushes {
		entries = append(entries, &all.Pushes[i].LiveEntry)
	}
	for _, e := range entries {
		e.Client, e.User = number(n.addresses, "client", e.Client), number(n.people, "user", e.User)
	}
	hide := n.texts()
	for _, e := range entries {
		e.Agent, e.Error = hide(e.Agent), hide(e.Error)
	}
	return json.MarshalIndent(all, "", "  ")
}

// queue replaces the users of pushes.
func (n *names) queue(text []byte) ([]byte, error) {
	var all api.Queued
	if err := json.Unmarshal(text, &all); err != nil {
		return nil, err
	}
	for i := range all.Pushes {
		all.Pushes[i].User = number(n.people, "user", all.Pushes[i].User)
	}
	hide := n.texts()
	for i := range all.Pushes {
		all.Pushes[i].Error = hide(all.Pushes[i].Error)
	}
	return json.MarshalIndent(all, "", "  ")
}
