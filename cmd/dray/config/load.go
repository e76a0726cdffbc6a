package config

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"dray/upstream/auth"
)

// Load makes the effective configuration: the defaults, then the file at path (none where path is
// empty), then the variables of environ, which has the form of os.Environ. Defaults that depend on
// other values are filled in, and passwords are read from where they are kept. also looks at the
// result like what is known here. The error is of type Problems and holds everything that is wrong;
// the configuration is then good for looking at only.
func Load(path string, environ []string, also ...Validator) (Config, error) {
	vars := variables(environ)
	over, problems := readEnvironment(vars)
	cfg := Default(environ)
	origins := map[string]string{}
	if path == "" && over.Config != nil {
		path = *over.Config
	}
	if path != "" {
		text, err := os.ReadFile(path)
		if err != nil {
			return cfg, append(problems, Problem{Message: fmt.Sprintf("configuration: %v", err)})
		}
		d := decodeYAML(filepath.Base(path), bytes.NewReader(text), &cfg)
		origins, problems = d.origins, append(problems, d.problems...)
	}
	over.override(&cfg, origins)
	cfg.complete()
	found, k := cfg.readSecrets(vars), &Report{}
	cfg.validate(k, also)
	cfg.checkFiles(k)
	return cfg, merge(problems, append(found, k.problems...), origins).err()
}

// merge adds the problems found in the completed configuration to those found while reading it.
// What could not be read is not reported again for the default in its place.
func merge(reading, found Problems, origins map[string]string) Problems {
	unread := map[string]bool{}
	for _, p := range reading {
		unread[p.Path] = p.Path != ""
	}
	for _, p := range found {
		if !unread[p.Path] {
			p.Origin = cmp.Or(p.Origin, originOf(p.Path, origins))
			reading = append(reading, p)
		}
	}
	return reading
}

// originOf is where the value at path came from, or else the section around it.
func originOf(path string, origins map[string]string) string {
	for path != "" {
		if origin, ok := origins[path]; ok {
			return origin
		}
		path = path[:max(strings.LastIndexAny(path, ".["), 0)]
	}
	return ""
}

// readSecrets takes the passwords from the files and variables that hold them.
func (c *Config) readSecrets(vars map[string]string) Problems {
	var problems Problems
	fromFile := func(path, file string, to *auth.Secret) {
		text, err := os.ReadFile(file)
		if err != nil {
			problems = append(problems, Problem{Path: path, Message: err.Error()})
		} else if *to = auth.Secret(bytes.TrimSpace(text)); *to == "" {
			problems = append(problems, Problem{Path: path, Message: file + " is empty"})
		}
	}
	for i := range c.Upstreams {
		cred, path := &c.Upstreams[i].Credentials, "upstreams["+strconv.Itoa(i)+"].credentials"
		switch {
		case cred.PasswordFile != "":
			fromFile(path+".password_file", cred.PasswordFile, &cred.Password)
		case cred.PasswordEnv != "":
			if cred.Password = auth.Secret(vars[cred.PasswordEnv]); cred.Password == "" {
				problems = append(problems, Problem{Path: path + ".password_env", Message: cred.PasswordEnv + " is not set"})
			}
		}
	}
	for i := range c.Checks {
		for j := range c.Checks[i].Webhooks {
			if w := &c.Checks[i].Webhooks[j]; w.SecretFile != "" {
				fromFile(At(At("checks", i)+".webhooks", j)+".secret_file", w.SecretFile, &w.Secret)
			}
		}
	}
	for i := range c.Notifications {
		if n := &c.Notifications[i]; n.SecretFile != "" {
			fromFile(At("notifications", i)+".secret_file", n.SecretFile, &n.Secret)
		}
	}
	if m := &c.Metadata; m.PasswordFile != "" && m.Password == "" {
		fromFile("metadata.password_file", m.PasswordFile, &m.Password)
	}
	return problems
}
