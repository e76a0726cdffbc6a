package config

import _ "embed"

// TestGenerated writes reference.md, docs/config.md, example.yaml and schema.json, from the types
// of the configuration and their comments.
//
//go:generate go test -run=^TestGenerated . -update

// Reference is the Markdown page that explains every variable and key.
//
//go:embed reference.md
var Reference string

// Example is a configuration file. It has each key that has a default, with that default and a
// comment.
//
//go:embed example.yaml
var Example string

// Schema is the JSON Schema of a configuration file, draft 2020-12.
//
//go:embed schema.json
var Schema string
