package auth

import (
	"fmt"
	"io"
	"log/slog"
)

const redacted = "[redacted]"

// Secret is a string that no formatter, logger or encoder shows. Reveal is the only way to its value, so a search for
// it finds every place where a secret leaves the process.
type Secret string

// Reveal returns the secret itself.
func (s Secret) Reveal() string { return string(s) }

// String returns a fixed text in place of the secret.
func (s Secret) String() string { return redacted }

// GoString returns a fixed text in place of the secret.
func (s Secret) GoString() string { return redacted }

// Format writes a fixed text for every verb, including %x and %q.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// LogValue returns a fixed text in place of the secret.
func (s Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText returns a fixed text in place of the secret; encoding/json and YAML encoders use it too.
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// MarshalJSON returns a fixed text in place of the secret.
func (s Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }
