package config

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"dray/mirror/reread"
	"dray/upstream/auth"
)

// Load returns the effective configuration: the defaults, then the file at path, then the variables
// of environ, which has the form of os.Environ. If path is empty, DRAY_CONFIG names the file.
//
// Load sets the defaults that depend on other values, reads passwords from their files and
// variables, and validates the result, also with the given validators. An error is of type Problems
// and has every problem. If the file cannot be read, the error has only that problem and the
// problems of the variables. If there is an error, the configuration must not be used to run dray.
func Load(path string, environ []string, validators ...Validator) (Config, error) {
	return load(path, environ, os.ReadFile, validators)
}

// LoadAgain does the work of Load for a running dray. It returns an error for an empty file: an
// editor may be about to write the file, and with the defaults alone, dray would require no
// passwords.
func LoadAgain(path string, environ []string, validators ...Validator) (Config, error) {
	return load(path, environ, func(path string) ([]byte, error) {
		text, err := reread.ReadFile(path)
		if err == nil && len(bytes.TrimSpace(text)) == 0 {
			err = fmt.Errorf("%s is empty; for the defaults, write a comment into it", path)
		}
		return text, err
	}, validators)
}

func load(path string, environ []string, read func(string) ([]byte, error), validators []Validator) (Config, error) {
	vars := variables(environ)
	over, problems := readEnvironment(vars)
	cfg := Default(environ)
	origins := map[string]string{}
	if path == "" && over.Config != nil {
		path = *over.Config
	}
	if path != "" {
		text, err := read(path)
		if err != nil {
			return cfg, append(problems, Problem{Message: fmt.Sprintf("configuration: %v", err)})
		}
		d := decodeYAML(filepath.Base(path), text, &cfg)
		origins, problems = d.origins, append(problems, d.problems...)
	}
	over.override(&cfg, origins)
	cfg.complete()
	found, k := cfg.readSecrets(vars), &Report{}
	cfg.validate(k, validators)
	cfg.checkFiles(k)
	return cfg, merge(problems, append(found, k.problems...), origins).err()
}

// merge adds the problems of the completed configuration to the problems from reading it. If a
// value could not be read, the completed configuration has the default in its place. merge leaves
// out the problems with that default.
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

// originOf returns the origin of the value at path. If there is none, it returns the origin of the
// closest section around the value, or "" for a default.
func originOf(path string, origins map[string]string) string {
	for path != "" {
		if origin, ok := origins[path]; ok {
			return origin
		}
		path = path[:max(strings.LastIndexAny(path, ".["), 0)]
	}
	return ""
}

// readSecrets reads passwords from their files and variables.
func (c *Config) readSecrets(vars map[string]string) Problems {
	var problems Problems
	fromFile := func(path, file string, to *auth.Secret) {
		text, err := reread.ReadFile(file)
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
	switch m := &c.Metadata; {
	case m.Password != "":
		m.PasswordFile = "" // the variable overrides the file, so a running dray must not read the file
	case m.PasswordFile != "":
		fromFile("metadata.password_file", m.PasswordFile, &m.Password)
	}
	return problems
}
