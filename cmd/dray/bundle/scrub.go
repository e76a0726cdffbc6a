package bundle

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"dray/cmd/dray/config"
	"dray/mirror/reread"
	"dray/upstream/auth"
)

const (
	redacted = "[redacted]"
	// shortest is the length in bytes of the shortest secret that the scrubber looks for. A shorter
	// secret may be a part of ordinary words, which the scrubber would redact.
	shortest = 6
)

// scrubber removes from texts the secrets of the configuration, of the files that the configuration
// names, and of the environment. It also removes what looks like a secret.
type scrubber struct {
	known *strings.Replacer
	found map[string]bool
}

// forms match texts that look like secrets. The scrubber keeps the text of the first group.
var forms = []*regexp.Regexp{
	regexp.MustCompile(`(?i)(\b(?:basic|bearer)\s+)[A-Za-z0-9._~+/=-]{8,}`),
	regexp.MustCompile(`(?i)(authorization["']?\s*[:=]\s*["']?)(?:[A-Za-z]+\s+)?[^\s"']+`),
	regexp.MustCompile(`(\b[a-z][a-z0-9+.-]*://)[^/@\s"'\x60]+@`), // a user and a password in a URL
	// A secret in a query, as in presigned URLs, or in a fragment. JSON may write an ampersand as
	// \u0026. Azure calls a signature sig.
	regexp.MustCompile(`(?i)((?:[?&;#]|\\u0026)(?:sig|[^=&\s"'\\]*(?:` + config.SecretNames + `)[^=&\s"'\\]*)=)[^&\s"'\\]+`),
	regexp.MustCompile(`()\b(?:AKIA|ASIA)[A-Z0-9]{16}\b`),                           // access keys of AWS
	regexp.MustCompile(`()\beyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*`), // JSON web tokens
	regexp.MustCompile(`()\$2[aby]\$\d\d\$[./A-Za-z0-9]{53}`),                       // hashes of passwords
	regexp.MustCompile(`()-----BEGIN [A-Z ]*PRIVATE KEY-----(?s:.*?)-----END [A-Z ]*PRIVATE KEY-----`),
}

// secretName matches the names of environment variables, and of parameters in the query of a URL,
// whose values are secrets.
var secretName = regexp.MustCompile(`(?i)header|` + config.SecretNames)

// pathName matches names that secretName also matches, but whose values are paths. The value alone
// does not show that it is a path, because some secret access keys of AWS also begin with a slash.
var pathName = regexp.MustCompile(`(?i)^((OLD)?PWD|XAUTHORITY|.*_SOCK|.*ASKPASS)$`)

// newScrubber returns a scrubber with the secrets of a configuration and an environment.
func newScrubber(cfg config.Config, environ []string) *scrubber {
	s := &scrubber{found: map[string]bool{}}
	s.value(reflect.ValueOf(cfg))
	for _, v := range environ {
		name, value, _ := strings.Cut(v, "=")
		switch upper := strings.ToUpper(name); {
		case pathName.MatchString(name):
		case secretName.MatchString(name) && (strings.HasSuffix(upper, "_FILE") || strings.HasPrefix(upper, "TLS_")):
			s.file(value)
		case secretName.MatchString(name):
			s.text([]byte(value))
		default:
			s.url(value)
		}
	}
	all := make([]string, 0, len(s.found))
	for secret := range s.found {
		all = append(all, secret)
	}
	slices.SortFunc(all, func(a, b string) int { return len(b) - len(a) }) // the longest first
	var pairs []string
	for _, secret := range all {
		pairs = append(pairs, secret, redacted)
	}
	s.known = strings.NewReplacer(pairs...)
	return s
}

// clean returns a text without secrets.
func (s *scrubber) clean(text []byte) []byte {
	text = []byte(s.known.Replace(string(text)))
	for _, form := range forms {
		text = form.ReplaceAll(text, []byte("${1}"+redacted))
	}
	return text
}

// value adds the secrets in a part of a configuration.
func (s *scrubber) value(v reflect.Value) {
	switch secret := v.Interface().(type) {
	case auth.Secret:
		s.text([]byte(secret.Reveal()))
		return
	case config.SecretURL:
		s.url(secret.Reveal())
		return
	case config.Variable:
		_, value, _ := strings.Cut(secret.Reveal(), "=")
		s.add(value)
		return
	case config.Command:
		for i, shown := range secret.Redacted() {
			if shown != secret[i] {
				_, value, _ := strings.Cut(secret[i], "=")
				s.add(value)
				s.url(value)
				s.url(secret[i])
				s.add(strings.TrimPrefix(secret[i], strings.TrimSuffix(shown, "[redacted]"))) // for the argument -pPASSWORD, adds PASSWORD
			}
		}
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			field := v.Type().Field(i)
			if !field.IsExported() {
				continue
			}
			name, _, _ := strings.Cut(field.Tag.Get("yaml"), ",")
			if v.Field(i).Kind() == reflect.String && namesSecrets(name) {
				s.file(v.Field(i).String())
			}
			s.value(v.Field(i))
		}
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			s.value(v.Index(i))
		}
	case reflect.Map:
		for _, key := range v.MapKeys() {
			s.value(v.MapIndex(key))
		}
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			s.value(v.Elem())
		}
	}
}

// namesSecrets reports whether a key of the configuration names a file with secrets.
func namesSecrets(key string) bool {
	return key == "private_key" || key == "file" || strings.HasSuffix(key, "_file") && key != "ca_file"
}

// file adds the secrets in a file: its whole text, each line, and the value after a name in a line.
func (s *scrubber) file(path string) {
	if path == "" {
		return
	}
	text, err := reread.ReadFile(path)
	if err != nil || len(text) > maxFile {
		// Only the pages of a running dray can bring secrets of this file into the archive, and that
		// dray redacts them first.
		return
	}
	s.text(text)
}

func (s *scrubber) text(text []byte) {
	s.add(string(bytes.TrimSpace(text)))
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "#") || strings.HasPrefix(line, "-----") {
			continue
		}
		s.add(line)
		s.url(line)
		if words := strings.Fields(line); len(words) == 2 { // the value of a header, such as Bearer and a token
			s.add(words[1])
		}
		for _, separator := range []string{":", "="} {
			if _, value, named := strings.Cut(line, separator); named {
				s.add(strings.TrimSpace(value))
				for word := range strings.FieldsSeq(value) {
					if !strings.EqualFold(word, "bearer") { // the secret is the word after Bearer
						s.add(word)
					}
				}
			}
		}
	}
}

// url adds the secrets in a URL. Services accept secrets as the user, in the path, and in the
// query.
func (s *scrubber) url(text string) {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" && u.User == nil {
		return
	}
	if u.User != nil {
		password, _ := u.User.Password()
		s.add(password)
		if u.Scheme == "http" || u.Scheme == "https" {
			s.add(u.User.Username())
		}
		s.add(u.User.String())
	}
	for name, values := range u.Query() {
		if secretName.MatchString(name) {
			for _, value := range values {
				s.add(value)
			}
		}
	}
	if segments := strings.Split(strings.Trim(u.Path, "/"), "/"); u.Scheme == "https" || u.Scheme == "http" {
		for _, segment := range segments {
			if len(segment) >= 16 { // shorter segments are ordinary words
				s.add(segment)
			}
		}
	}
}

// add adds a secret in each form that it has in JSON, in URLs, in headers, and quoted in errors.
func (s *scrubber) add(secret string) {
	if len(secret) < shortest {
		return
	}
	quoted := strconv.Quote(secret)
	quoted = quoted[1 : len(quoted)-1]
	for _, form := range []string{
		secret, asJSON(secret), quoted, asJSON(quoted), url.QueryEscape(secret), url.PathEscape(secret), url.UserPassword("", secret).String()[1:],
		base64.StdEncoding.EncodeToString([]byte(secret)),
	} {
		s.found[form] = true
	}
}

// asJSON returns a text as a JSON string, without the quotation marks.
func asJSON(text string) string {
	quoted, _ := json.Marshal(text)
	return string(quoted[1 : len(quoted)-1])
}
