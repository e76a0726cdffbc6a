package config

import (
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"regexp"
	"strings"
)

const redacted = "[redacted]"

// errSecretInFile is the error for a secret in the configuration file. From there, the secret would
// get into backups and reviews.
var errSecretInFile = errors.New("secrets are not allowed in this file; set the name of a file or of an environment variable that contains it")

// SecretURL is a URL whose secrets are redacted when printed. Reveal returns the whole URL.
type SecretURL string

// Reveal returns the URL with its secrets.
func (s SecretURL) Reveal() string { return string(s) }

// String returns the URL with its secrets redacted. In a URL for Redis (redis, rediss or unix), the
// secrets are the password, the fragment, and parameters with names such as token. Of an http or
// https URL, only the scheme and the host remain, because services accept tokens as the user name,
// in the path and in the query. Any other URL is redacted as a whole.
func (s SecretURL) String() string {
	u, err := url.Parse(string(s))
	switch {
	case s == "":
		return ""
	case err != nil || u.Opaque != "":
		return redacted
	case u.Scheme == "http" || u.Scheme == "https":
		shown := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}
		if strings.Trim(u.Path, "/") != "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
			shown.Path = "/redacted"
		}
		return shown.String()
	case u.Scheme != "redis" && u.Scheme != "rediss" && u.Scheme != "unix":
		return redacted
	}
	if _, ok := u.User.Password(); ok {
		u.User = url.UserPassword(u.User.Username(), "redacted")
	}
	if u.Fragment != "" {
		u.Fragment, u.RawFragment = "redacted", ""
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil { // the variable query lacks the part that cannot be parsed, which may be secret
		u.RawQuery = "redacted"
	}
	for key := range query {
		if secretName.MatchString(key) {
			query.Set(key, "redacted")
			u.RawQuery = query.Encode()
		}
	}
	return u.String()
}

// Format implements fmt.Formatter, so that no verb shows the secrets.
func (s SecretURL) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(s.String())) }

// LogValue implements slog.LogValuer, so that logs do not show the secrets.
func (s SecretURL) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText returns the redacted URL, for printed configurations.
func (s SecretURL) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText sets the URL without parsing it.
func (s *SecretURL) UnmarshalText(text []byte) error {
	*s = SecretURL(text)
	return nil
}

// SecretNames are parts of the names whose values are secrets, as alternatives of a regular
// expression.
const SecretNames = `pass|pwd|token|secret|key|credential|auth|signature`

// secretName matches names of flags, variables and parameters whose values are secrets.
var secretName = regexp.MustCompile(`(?i)` + SecretNames)

// assignment matches a value such as API_TOKEN=x, in an argument such as --env=API_TOKEN=x.
var assignment = regexp.MustCompile(`(?i)^[a-z0-9_-]*(` + SecretNames + `)[a-z0-9_-]*=`)

// header matches the beginning of an argument such as Authorization: Bearer x.
var header = regexp.MustCompile(`(?i)^[a-z0-9-]*(` + SecretNames + `)[a-z0-9-]*: *`)

// shortSecrets are the short flags by which common programs take users, passwords and headers.
const shortSecrets = "upH"

// takesSecret matches the flags that take the next argument as their value, which is a secret. If
// short flags are joined, as in -sSu, the last one takes the value.
var takesSecret = regexp.MustCompile(`^-[[:alnum:]]*[` + shortSecrets + `]$|^--(user|header)$`)

// joined matches a flag that is directly followed by its secret in the same argument, as in
// -psecret or -sSuuser:secret. It also matches the -ou of a long flag such as -output, so Redacted
// hides the rest of such a flag, too.
var joined = regexp.MustCompile(`^-[[:alnum:]]*?[` + shortSecrets + `]`)

// Command is a program and its arguments. When it is printed, the values of flags such as --token,
// -u and -H are redacted, and so are those of variables and headers with names such as API_TOKEN.
// Every URL is shown like a [SecretURL].
type Command []string

// Redacted returns the command without the secrets.
func (c Command) Redacted() []string {
	shown := make([]string, len(c))
	hide := false // whether the flag before this argument takes a secret
	for i, arg := range c {
		name, value, assigned := strings.Cut(arg, "=")
		u, err := url.Parse(arg)
		flag := joined.FindString(arg)
		switch {
		case i > 0 && hide: // a secret may begin with a hyphen
			shown[i] = redacted
		case i > 0 && flag != "" && flag != arg:
			shown[i] = flag + redacted
		case err == nil && u.Host != "":
			shown[i] = SecretURL(arg).String()
		case i > 0 && assigned && (secretName.MatchString(name) || takesSecret.MatchString(name) || assignment.MatchString(value)):
			shown[i] = name + "=" + redacted
		case i > 0 && header.MatchString(arg):
			shown[i] = header.FindString(arg) + redacted
		case i > 0 && assigned && strings.Contains(value, "://"):
			shown[i] = name + "=" + SecretURL(value).String()
		default:
			shown[i] = arg
		}
		hide = strings.HasPrefix(arg, "-") && !strings.HasPrefix(arg, "--no-") && !assigned && secretName.MatchString(arg) || takesSecret.MatchString(arg)
	}
	return shown
}

// Format implements fmt.Formatter, so that no verb shows the secrets.
func (c Command) Format(f fmt.State, _ rune) { _, _ = fmt.Fprint(f, c.Redacted()) }

// LogValue implements slog.LogValuer, so that logs do not show the secrets.
func (c Command) LogValue() slog.Value { return slog.StringValue(strings.Join(c.Redacted(), " ")) }

// MarshalYAML returns the redacted command, for printed configurations.
func (c Command) MarshalYAML() (any, error) { return c.Redacted(), nil }

// Variable is a variable for a program, as NAME=value. Its value is redacted when printed.
type Variable string

// Reveal returns the variable with its value.
func (v Variable) Reveal() string { return string(v) }

// String returns the name of the variable with a redacted value.
func (v Variable) String() string {
	name, _, ok := strings.Cut(string(v), "=")
	if !ok {
		return redacted
	}
	return name + "=" + redacted
}

// Format implements fmt.Formatter, so that no verb shows the value.
func (v Variable) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(v.String())) }

// LogValue implements slog.LogValuer, so that logs do not show the value.
func (v Variable) LogValue() slog.Value { return slog.StringValue(v.String()) }

// MarshalText formats the variable like String, for printed configurations.
func (v Variable) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// UnmarshalText sets the variable, which must be NAME=value. The error does not contain the value.
func (v *Variable) UnmarshalText(text []byte) error {
	if name, _, ok := strings.Cut(string(text), "="); !ok || name == "" {
		return errors.New("must be a variable as NAME=value")
	}
	*v = Variable(text)
	return nil
}
