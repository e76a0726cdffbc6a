package config

import _ "embed"

// TestGenerated writes the pages from the types of the configuration and their comments.
//
//go:generate go test -run=^TestGenerated . -update

// Reference is the Markdown page that explains every variable and key.
//
//go:embed reference.md
var Reference string

// Example is a file that changes nothing: each key that has a default, with its meaning above it.
//
//go:embed example.yaml
var Example string
