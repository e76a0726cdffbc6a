// Command fakeecr runs the ECR of package ecrtest as a process: registry, AWS API, object store and
// control API on four listeners. With --hub, fakeecr is an ordinary anonymous registry in the style
// of Docker Hub instead. With --public, it is a registry like ECR Public.
//
// When it is ready, it prints one line of JSON with its addresses on stdout. With --env, it prints
// instead the environment variables that make dray use fakeecr in place of ECR. fakeecr ends on
// SIGINT and SIGTERM, and its content is then lost.
//
// If a command follows the flags, such as "bin/dray serve", fakeecr prints no addresses. It runs
// the command with the variables of --env in its environment, and ends when the command ends.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"dray/upstream/ecrtest"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "fakeecr:", err)
		os.Exit(1)
	}
}

// ready is the line of JSON with the addresses.
type ready struct {
	Personality string            `json:"personality"`
	Registry    string            `json:"registry"`         // base URL at the listen address
	Host        string            `json:"registryHost"`     // ECR-shaped name with port
	API         string            `json:"api"`              // for AWS_ENDPOINT_URL_ECR and AWS_ENDPOINT_URL_CLOUDWATCH
	Objects     string            `json:"objects"`          // target of signed URLs
	Control     string            `json:"control"`          // JSON control API
	CA          string            `json:"caFile,omitempty"` // PEM file of the generated authority
	PID         int               `json:"pid"`
	Images      map[string]string `json:"images,omitempty"` // digests of the seeded images, by name:tag
}

// run is main with its arguments and its outputs as parameters.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	f, command, err := parseFlags(args, stderr)
	if err != nil {
		return err
	}
	if len(command) > 0 {
		dir, err := f.prepare(command)
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
	}
	opts, err := f.options(slog.New(slog.NewTextHandler(stderr, nil)))
	if err != nil {
		return err
	}
	srv, err := ecrtest.Listen(opts, f.addresses)
	if err != nil {
		return err
	}
	line, err := announce(srv, f)
	if err != nil {
		return errors.Join(err, srv.Close())
	}
	if len(command) > 0 {
		return runCommand(ctx, srv, variables(srv, f), command, stdout, stderr)
	}
	if f.env {
		line = shellOf(variables(srv, f))
	}
	if _, err := stdout.Write(line); err != nil {
		return errors.Join(fmt.Errorf("print addresses: %w", err), srv.Close())
	}
	return srv.Run(ctx)
}

// variable is a variable of the environment.
type variable struct{ name, value string }

// variables returns the variables that make dray use fakeecr in place of ECR. The credentials are
// placeholders, because fakeecr accepts any credentials.
func variables(srv *ecrtest.Running, f *flags) []variable {
	host, _, _ := strings.Cut(srv.RegistryHost, ":")
	if strings.HasPrefix(srv.RegistryURL, "http://") {
		host = "http://" + host
	}
	all := []variable{{"ECR_REGISTRY", host}, {"DRAY_ECR_ADDRESS", srv.RegistryAddr}}
	if srv.CAPEM != nil && f.caFile != "" {
		path, err := filepath.Abs(f.caFile)
		if err != nil {
			path = f.caFile
		}
		all = append(all, variable{"DRAY_ECR_CA_FILE", path})
	}
	return append(all, variable{"AWS_ENDPOINT_URL_ECR", srv.APIURL}, variable{"AWS_ENDPOINT_URL_CLOUDWATCH", srv.APIURL},
		variable{"AWS_ACCESS_KEY_ID", "stand-in"}, variable{"AWS_SECRET_ACCESS_KEY", "stand-in"})
}

// shellOf returns the shell commands that export the variables.
func shellOf(variables []variable) []byte {
	var b bytes.Buffer
	for _, v := range variables {
		fmt.Fprintf(&b, "export %s='%s'\n", v.name, strings.ReplaceAll(v.value, "'", `'\''`))
	}
	return b.Bytes()
}

// announce seeds the images, writes the requested files, and returns the line with the addresses.
// Clients can connect already, but they get answers only once the server runs.
func announce(srv *ecrtest.Running, f *flags) ([]byte, error) {
	r := ready{Personality: f.personality(), Registry: srv.RegistryURL, Host: srv.RegistryHost, API: srv.APIURL, Objects: srv.ObjectsURL,
		Control: srv.ControlURL, PID: os.Getpid(), Images: map[string]string{}}
	for _, img := range f.seeds {
		d, err := srv.Seed(img)
		if err != nil {
			return nil, err
		}
		r.Images[img.Repository+":"+img.Tag] = d.String()
	}
	for _, name := range f.repositories {
		srv.CreateRepository(name)
	}
	if f.caFile != "" && srv.CAPEM != nil {
		if err := os.WriteFile(f.caFile, srv.CAPEM, 0o644); err != nil {
			return nil, fmt.Errorf("write authority: %w", err)
		}
		r.CA = f.caFile
	}
	line, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("render addresses: %w", err)
	}
	line = append(line, '\n')
	if f.readyFile != "" {
		if err := writeWhole(f.readyFile, line); err != nil {
			return nil, err
		}
	}
	return line, nil
}

// writeWhole creates the file with all of its content at once, so that nobody reads a part of it.
func writeWhole(path string, content []byte) error {
	tmp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".tmp")
	if err := os.WriteFile(tmp, content, 0o644); err != nil {
		return fmt.Errorf("write ready file: %w", err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("write ready file: %w", err)
	}
	return nil
}
