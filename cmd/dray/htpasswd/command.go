// Package htpasswd is the subcommand that changes a password file of clients or operators.
package htpasswd

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"dray/cmd/dray/usage"
	"dray/mirror/identity"
)

// options are the arguments and flags of dray htpasswd.
type options struct {
	file, user       string
	remove, generate bool
}

// Command returns the subcommand htpasswd.
func Command(stdin io.Reader, stdout, stderr io.Writer) *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "htpasswd FILE USER",
		Short: "Set or delete the password of a user in a password file",
		Long: `htpasswd sets the password of a user in FILE, or deletes the user. FILE is the
file that auth.htpasswd.file of the configuration names. htpasswd replaces it in
one step, and keeps its owner. A running dray reads the changed file by itself.
If FILE is missing, htpasswd creates it, and only you can read it: make the user
of dray its owner.

The password is one line of standard input. On a terminal, htpasswd asks for the
password twice and does not show it. FILE gets only a bcrypt hash of it.`,
		Example: "  dray htpasswd /etc/dray/htpasswd ci\n  dray htpasswd --generate /etc/dray/htpasswd ci > ci.password\n  dray htpasswd --delete /etc/dray/htpasswd ci",
		Args:    usage.Between(2, 2),
		RunE: func(_ *cobra.Command, args []string) error {
			o.file, o.user = args[0], args[1]
			return o.run(stdin, stdout, stderr)
		},
	}
	cmd.Flags().BoolVar(&o.remove, "delete", false, "delete the user")
	cmd.Flags().BoolVar(&o.generate, "generate", false, "make a random password, and print it")
	cmd.MarkFlagsMutuallyExclusive("delete", "generate")
	return cmd
}

func (o options) run(stdin io.Reader, stdout, stderr io.Writer) error {
	if err := checkUser(o.user); err != nil {
		return err
	}
	password, hash := "", ""
	if !o.remove {
		var err error
		if password, err = o.password(stdin, stderr); err != nil {
			return err
		}
		if hash, err = hashOf(password); err != nil {
			return err
		}
	}
	if err := change(o.file, func(text []byte) ([]byte, error) {
		changed, found := edit(text, o.user, hash)
		if o.remove && !found {
			return nil, fmt.Errorf("%s has no user %q", o.file, o.user)
		}
		return changed, nil
	}); err != nil {
		return err
	}
	if err := identity.CheckHTPasswd(o.file); err != nil {
		fmt.Fprintf(stderr, "warning: %s was changed, but dray cannot use it: %v; mend or delete these lines\n", o.file, err)
	}
	if o.generate {
		fmt.Fprintln(stdout, password)
	}
	return nil
}

// checkUser returns an error for a name that cannot be in a password file, or that no client could
// send.
func checkUser(user string) error {
	for _, c := range user {
		if c == ':' || c < ' ' || c == 0x7f {
			return fmt.Errorf("%q is not a user name: it must have neither a colon nor control characters; %w", user, usage.Err)
		}
	}
	if user == "" || strings.TrimSpace(user) != user || strings.HasPrefix(user, "#") {
		return fmt.Errorf("%q is not a user name: it must not be empty, begin with # or have space around it; %w", user, usage.Err)
	}
	return nil
}

// password returns a random password, a password that a person types, or the first line of stdin.
func (o options) password(stdin io.Reader, prompts io.Writer) (string, error) {
	if o.generate {
		return rand.Text(), nil
	}
	if f, ok := stdin.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return ask(o.user, prompts, func() ([]byte, error) { return term.ReadPassword(int(f.Fd())) })
	}
	line, err := bufio.NewReader(stdin).ReadString('\n')
	if line = strings.TrimRight(line, "\r\n"); line != "" {
		return line, nil
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("read the password from standard input: %w", err)
	}
	return "", errors.New("the password is empty; write it to standard input, or use --generate")
}

// ask asks twice for a password, because the terminal does not show the typed letters.
func ask(user string, prompts io.Writer, read func() ([]byte, error)) (string, error) {
	var typed [2][]byte
	for i, prompt := range []string{"Password for " + user + ": ", "The same again: "} {
		fmt.Fprint(prompts, prompt)
		var err error
		typed[i], err = read()
		fmt.Fprintln(prompts)
		if err != nil {
			return "", fmt.Errorf("read the password: %w", err)
		}
	}
	switch {
	case len(typed[0]) == 0:
		return "", errors.New("the password is empty; nothing was changed")
	case !bytes.Equal(typed[0], typed[1]):
		return "", errors.New("the two passwords differ; nothing was changed")
	}
	return string(typed[0]), nil
}
