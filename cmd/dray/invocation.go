package main

import (
	"io"

	"dray/cmd/dray/config"
	"dray/cmd/dray/directories"
)

// invocation is one run of the program: the streams, environment and flags that all subcommands
// share.
type invocation struct {
	environ        []string
	stdin          io.Reader
	stdout, stderr io.Writer
	configPath     string
}

// load makes the effective configuration of this run.
func (in *invocation) load() (config.Config, error) { return load(in.configPath, in.environ) }

// loadAgain does the work of load for a reload.
func (in *invocation) loadAgain() (config.Config, error) {
	return config.LoadAgain(in.configPath, in.environ, checkParts)
}

// directories returns the directories that `dray serve` would use in this run.
func (in *invocation) directories() (directories.Directories, error) {
	cfg, err := in.load()
	return directoriesOf(cfg), err
}
