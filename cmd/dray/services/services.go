// Package services gets from the configuration the URLs, headers, keys and environment variables
// with which dray calls services and programs.
package services

import (
	"bytes"
	"fmt"
	"maps"
	"net/http"
	"strings"

	"dray/cmd/dray/config"
	"dray/cmd/dray/watched"
	"dray/mirror/pipeline/webhook"
)

// Of returns a service. Its URL, headers and key come from c or from the files that c names.
func Of(c config.Service, files watched.Source) (webhook.Service, error) {
	url, err := watched.Value(files, c.URLFile, parseURL, c.URL.Reveal())
	if err != nil {
		return webhook.Service{}, fmt.Errorf("url_file: %w", err)
	}
	fixed, _ := watched.Headers(c.Headers) // the function Check reports this error
	changing, err := watched.Value(files, c.HeadersFile, watched.ParseHeaders, nil)
	if err != nil {
		return webhook.Service{}, fmt.Errorf("headers_file: %w", err)
	}
	key, err := files.Secret(c.SecretFile, "")
	if err != nil {
		return webhook.Service{}, fmt.Errorf("secret_file: %w", err)
	}
	return webhook.Service{
		URL: url, Secret: func() []byte { return []byte(key().Reveal()) },
		Header: func() http.Header {
			h := fixed.Clone()
			maps.Copy(h, changing())
			return h
		},
	}, nil
}

// parseURL parses a file that contains the URL of a service.
func parseURL(text []byte) (string, error) {
	url := string(bytes.TrimSpace(text))
	return url, webhook.CheckURL(url)
}

// Variables returns a function that returns the environment variables of a program. A variable in
// environment_file replaces the one with the same name in the configuration.
func Variables(c config.ExecCheck, files watched.Source) (func() []string, error) {
	changing, err := watched.Value(files, c.EnvironmentFile, watched.ParseVariables, nil)
	if err != nil {
		return nil, fmt.Errorf("environment_file: %w", err)
	}
	return func() []string {
		var all []string
		seen := map[string]bool{}
		add := func(variable string) {
			name, _, _ := strings.Cut(variable, "=")
			if !seen[name] {
				all = append(all, variable)
			}
			seen[name] = true
		}
		for _, v := range changing() {
			add(v)
		}
		for _, v := range c.Environment {
			add(v.Reveal())
		}
		return all
	}, nil
}

// Check adds the problems with the settings of a service to k.
func Check(c config.Service, k *config.Report, path string) {
	switch {
	case c.URL != "" && c.URLFile != "":
		k.Add(path, "url and url_file are both set; remove one")
	case c.URLFile != "":
		CheckFile(k, path+".url_file", c.URLFile, parseURL)
	case c.URL == "":
		k.Add(path, "set url or url_file")
	default:
		if err := webhook.CheckURL(c.URL.Reveal()); err != nil {
			k.Add(path+".url", "%v", err)
		}
	}
	if _, err := watched.Headers(c.Headers); err != nil {
		k.Add(path+".headers", "%v", err)
	}
	CheckFile(k, path+".headers_file", c.HeadersFile, watched.ParseHeaders)
	CheckFile(k, path+".secret_file", c.SecretFile, watched.ParseSecret)
}

// CheckFile adds to k the problem of a file that cannot be read or parsed. An empty name means no
// file.
func CheckFile[T any](k *config.Report, path, name string, parse func(text []byte) (T, error)) {
	if name == "" {
		return
	}
	k.File(path, name, func(text []byte) error {
		_, err := parse(text)
		return err
	})
}
