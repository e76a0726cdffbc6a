package config

import (
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strings"

	"dray/mirror/reread"
)

// certificateNotice adds a notice if the certificate of the listener is not valid for the name in
// its external URL.
func (l Listener) certificateNotice(add func(format string, args ...any)) {
	if l.ExternalURL == "" || l.TLS.Certificate == "" {
		return
	}
	name, err := url.Parse(l.ExternalURL)
	if err != nil {
		return
	}
	pair, err := l.TLS.load()
	if err != nil || pair.Leaf.VerifyHostname(name.Hostname()) == nil {
		return // checkFiles reports a certificate that cannot be read
	}
	has := append([]string{}, pair.Leaf.DNSNames...)
	for _, ip := range pair.Leaf.IPAddresses {
		has = append(has, ip.String())
	}
	if len(has) == 0 {
		has = []string{"no name"} // clients ignore the common name
	}
	add("listener %s: the certificate is for %[3]s, not for %[2]s, the name in external_url (REGISTRY). Clients will not trust it.",
		l.Name, name.Hostname(), strings.Join(has, ", "))
}

// usersNotice adds a notice if the password file of this entry of auth has no users.
func (a Auth) usersNotice(add func(format string, args ...any)) {
	if a.HTPasswd.File == "" {
		return
	}
	text, err := reread.ReadFile(a.HTPasswd.File)
	if err != nil {
		return // a validator has reported this error
	}
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			return
		}
	}
	add("auth %s: %s has no users, so nobody can log in. Add users with htpasswd -B; dray reads the changed file without a restart.", a.Name, a.HTPasswd.File)
}

// ContainerNotices returns warnings if dray runs in a container: one for each listener that
// published ports cannot reach. The image of dray sets the variable named container, as Podman does
// (systemd, "The Container Interface").
func (c Config) ContainerNotices(environ []string) (notices []string) {
	if variables(environ)["container"] == "" {
		return nil
	}
	for i, l := range c.Listeners {
		_, port, err := net.SplitHostPort(l.Address)
		if err != nil || !l.LocalOnly() {
			continue
		}
		key := "DRAY_ADDRESS" // sets the address of the first listener
		if i > 0 {
			key = fmt.Sprintf("listeners[%d].address", i)
		}
		advice := ""
		if l.Auth == noAuth {
			advice = fmt.Sprintf(" Anyone who can connect to the published port may then pull, so publish it as -p 127.0.0.1:%s:%[1]s, or configure auth.", port)
		}
		notices = append(notices, fmt.Sprintf("listener %s: dray listens on the loopback interface of the container, and ports that are published with -p do not lead there. Set %s to :%s.%s", l.Name, key, port, advice))
	}
	return notices
}

// DiskNotices returns warnings if the file system of the cache directory is smaller than the
// configuration expects.
func (c Config) DiskNotices() []string {
	dir := c.Cache.Directory
	for {
		if size, err := fileSystemSize(dir); err == nil {
			return c.Cache.sizeNotices(size)
		}
		above := filepath.Dir(dir) // dray has not created the directory yet
		if above == dir {
			return nil
		}
		dir = above
	}
}

func (c Cache) sizeNotices(total Bytes) []string {
	switch {
	case total <= c.MinFreeBytes:
		return []string{fmt.Sprintf("cache: the file system of %s has %v, and cache.min_free_bytes (%v) leaves none of them to dray. dray caches nothing and refuses pushes.", c.Directory, total, c.MinFreeBytes)}
	case c.MaxBytes > total:
		return []string{fmt.Sprintf("cache: the file system of %s has %v, less than cache.max_bytes (%v).", c.Directory, total, c.MaxBytes)}
	}
	return nil
}
