package config

import "dray/upstream/auth"

// Service says how dray reaches a service of the operator, which gets JSON documents by POST.
type Service struct {
	// The URL of the service. `dray check` shows only its host.
	URL SecretURL `yaml:"url,omitempty"`
	// A file with the URL, in place of `url`, for a URL that contains a token. dray ignores white
	// space around the URL, and reads the file again when it changes.
	URLFile string `yaml:"url_file,omitempty"`
	// Headers that dray adds to each request. `dray check` shows their values redacted.
	Headers map[string]auth.Secret `yaml:"headers,omitempty"`
	// A file with further headers, one in each line, as `Name: value`. They replace headers of the
	// same name in `headers`. dray ignores empty lines and lines that begin with `#`, and reads the
	// file again when it changes.
	HeadersFile string `yaml:"headers_file,omitempty"`
	// A file with the key that signs requests (HMAC-SHA-256); dray ignores white space around the key,
	// and reads the file again when it changes.
	SecretFile string `yaml:"secret_file,omitempty"`
	// The time for one request. Default: `5s`.
	Timeout Duration `yaml:"timeout,omitempty"`
}
