package bundle

import (
	"bytes"
	"encoding/json"
	"fmt"

	"go.yaml.in/yaml/v3"

	"dray/mirror/admin/api"
)

// names replaces addresses and names of clients by numbers. The same client has the same number in
// all files of an archive.
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

// live replaces the clients of pulls and pushes.
func (n *names) live(text []byte) ([]byte, error) {
	var all api.Live
	if err := json.Unmarshal(text, &all); err != nil {
		return nil, err
	}
	hide := func(e *api.LiveEntry) {
		e.Client, e.User = number(n.addresses, "client", e.Client), number(n.people, "user", e.User)
	}
	for i := range all.Pulls {
		hide(&all.Pulls[i].LiveEntry)
	}
	for i := range all.Pushes {
		hide(&all.Pushes[i].LiveEntry)
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
	return json.MarshalIndent(all, "", "  ")
}
