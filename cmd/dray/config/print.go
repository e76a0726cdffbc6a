package config

import (
	"fmt"
	"io"

	"go.yaml.in/yaml/v3"
)

// Print writes the configuration as YAML. Each secret has a type that redacts its value.
func (c Config) Print(w io.Writer) error {
	out := yaml.NewEncoder(w)
	out.SetIndent(2)
	out.CompactSeqIndent()
	if err := out.Encode(c); err != nil {
		return fmt.Errorf("print configuration: %w", err)
	}
	return out.Close()
}
