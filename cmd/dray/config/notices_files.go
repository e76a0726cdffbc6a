package config

import (
	"crypto/tls"
	"net/url"
	"os"
	"strings"
)

// certificateNotice says that clients will not accept the certificate of l under the name that they
// know dray by.
func (l Listener) certificateNotice(add func(format string, args ...any)) {
	if l.ExternalURL == "" || l.TLS.Certificate == "" {
		return
	}
	name, err := url.Parse(l.ExternalURL)
	if err != nil {
		return
	}
	pair, err := tls.LoadX509KeyPair(l.TLS.Certificate, l.TLS.PrivateKey)
	if err != nil || pair.Leaf.VerifyHostname(name.Hostname()) == nil {
		return // one that cannot be read is a problem, and reported as such
	}
	has := append([]string{}, pair.Leaf.DNSNames...)
	for _, ip := range pair.Leaf.IPAddresses {
		has = append(has, ip.String())
	}
	if len(has) == 0 {
		has = []string{"no name at all"} // clients stopped looking at the common name
	}
	add("listener %s: its certificate is not for %s, the name in external_url (REGISTRY), but for %s; clients will not trust it.",
		l.Name, name.Hostname(), strings.Join(has, ", "))
}

// usersNotice says that nobody can log in by the password file of a.
func (a Auth) usersNotice(add func(format string, args ...any)) {
	if a.HTPasswd.File == "" {
		return
	}
	text, err := os.ReadFile(a.HTPasswd.File)
	if err != nil {
		return // a problem, and reported as such
	}
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			return
		}
	}
	add("auth %s: %s holds no user, so nobody can log in; htpasswd -B adds one, and dray reads the file again by itself.", a.Name, a.HTPasswd.File)
}
