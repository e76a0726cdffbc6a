package ctl

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"dray/cmd/dray/config"
	"dray/cmd/dray/usage"
	"dray/mirror/admin/api"
	"dray/upstream/auth"
)

// ErrUnreachable reports that no connection to the admin listener could be made.
var ErrUnreachable = errors.New("cannot connect to dray: it is not running, or its admin listener has another address; set --admin")

// Options configure the subcommands.
type Options struct {
	Stdout, Stderr io.Writer
	// Environ has the environment, in the form of os.Environ.
	Environ []string
	// Load returns the configuration that the command "dray serve" would use.
	Load func() (config.Config, error)
}

// Commands returns the subcommands.
func Commands(o Options) []*cobra.Command {
	return []*cobra.Command{lsCommand(o), purgeCommand(o), pinCommand(o), unpinCommand(o), evictCommand(o), queueCommand(o), statsCommand(o), fleetCommand(o), healthCommand(o), reloadCommand(o), warmCommand(o), explainCommand(o), topCommand(o)}
}

// operator is a client of the admin listener's API.
type operator struct {
	base   string      // http://host:port
	token  auth.Secret // empty if dray requires no token, or if login is set
	login  auth.Secret // user:password, or empty
	client *http.Client
	stdout io.Writer
	stderr io.Writer // for messages that are not part of the answer
	json   bool      // print the answer as JSON
}

// operate adds to cmd the flags that all subcommands share, and makes cmd call action with an
// operator.
func (in Options) operate(cmd *cobra.Command, action func(ctx context.Context, o *operator, args []string) error) *cobra.Command {
	o := in.connect(cmd, action)
	cmd.Flags().BoolVar(&o.json, "json", false, "print JSON")
	return cmd
}

// connect is [Options.operate] without the flag --json. It returns the operator.
func (in Options) connect(cmd *cobra.Command, action func(ctx context.Context, o *operator, args []string) error) *operator {
	o := &operator{client: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}, stdout: in.Stdout, stderr: in.Stderr}
	var address, tokenFile, loginFile string
	cmd.Flags().StringVar(&address, "admin", "", "address of the admin listener (default: admin.address of the configuration)")
	cmd.Flags().StringVar(&tokenFile, "token-file", "", "file with the token of the admin listener (default: admin.token_file of the configuration; none with --admin)")
	cmd.Flags().StringVar(&loginFile, "login-file", "", "file with USER:PASSWORD of an operator that admin.auth of the running dray recognises")
	cmd.MarkFlagsMutuallyExclusive("token-file", "login-file")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := in.find(o, address, tokenFile); err != nil {
			return err
		}
		if err := o.logIn(loginFile); err != nil {
			return err
		}
		return action(cmd.Context(), o, args)
	}
	return o
}

// find sets the address and the token of an operator. address and tokenFile are the values of the
// flags. If address is empty, find takes the address from the configuration. If both are empty,
// find also takes the token from the configuration.
func (in Options) find(o *operator, address, tokenFile string) (err error) {
	if address == "" {
		cfg, err := in.Load()
		if err != nil {
			return fmt.Errorf("%w\nno configuration is needed if you set --admin ADDRESS", err)
		}
		if address = cfg.Admin.Address; address == config.AdminOff {
			return errors.New("the admin listener is off, and this command needs it; set admin.address in the configuration")
		}
		tokenFile = cmp.Or(tokenFile, cfg.Admin.TokenFile)
	}
	if tokenFile != "" {
		token, err := os.ReadFile(filepath.Clean(tokenFile))
		if err != nil {
			return fmt.Errorf("token of the admin listener: %w", err)
		}
		o.token = auth.Secret(bytes.TrimSpace(token))
	}
	o.base, err = adminURL(address)
	return err
}

// logIn reads a user and a password from a file. The operator then sends these in place of its
// token. If the name of the file is empty, logIn changes nothing.
func (o *operator) logIn(file string) error {
	if file == "" {
		return nil
	}
	text, err := os.ReadFile(filepath.Clean(file))
	if err != nil {
		return fmt.Errorf("login to the admin listener: %w", err)
	}
	if text = bytes.TrimSpace(text); !bytes.Contains(text, []byte(":")) {
		return fmt.Errorf("login to the admin listener: %s does not have the form USER:PASSWORD", file)
	}
	o.token, o.login = "", auth.Secret(text)
	return nil
}

func adminURL(address string) (string, error) {
	if rest, ok := strings.CutPrefix(address, "http://"); ok {
		address = strings.TrimSuffix(rest, "/")
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil || strings.Contains(host+port, "/") {
		return "", fmt.Errorf("--admin: not an address; write one like localhost:6060; %w", usage.Err)
	}
	if !config.NamesHost(host) {
		host = "localhost" // an empty or unspecified host means every interface
	}
	return "http://" + net.JoinHostPort(host, port), nil
}

// show calls an [admin.Query] and prints the answer.
func show[A any](ctx context.Context, o *operator, path string, params url.Values, table func(io.Writer, A)) error {
	var answer A
	if err := o.decode(ctx, http.MethodGet, path+query(params), nil, &answer); err != nil {
		return err
	}
	return o.print(answer, func(w io.Writer) { table(w, answer) })
}

// change calls an [admin.Change] and prints the answer.
func change[A any](ctx context.Context, o *operator, path string, q any, table func(io.Writer, A)) error {
	var answer A
	if err := o.post(ctx, path, q, &answer); err != nil {
		return err
	}
	return o.print(answer, func(w io.Writer) { table(w, answer) })
}

// post calls an [admin.Change] and decodes the answer.
func (o *operator) post(ctx context.Context, path string, q, answer any) error {
	body, err := json.Marshal(q)
	if err != nil {
		return err
	}
	return o.decode(ctx, http.MethodPost, path, body, answer)
}

// decode sends a request to the API and decodes the answer.
func (o *operator) decode(ctx context.Context, method, path string, body []byte, answer any) error {
	resp, err := o.send(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(answer); err != nil {
		return fmt.Errorf("cannot decode the answer of %s: %w", o.base, err)
	}
	return nil
}

// listing calls an [admin.List] and returns its items. If there is an error, it also returns the
// items that came before the error.
func listing[A any](ctx context.Context, o *operator, path string, params url.Values) ([]A, error) {
	resp, err := o.send(ctx, http.MethodGet, path+query(params), nil)
	if err != nil {
		return nil, err
	}
	items := []A{}
	if err := eachItem(resp, func(item A) { items = append(items, item) }); err != nil {
		return items, fmt.Errorf("the list from %s is incomplete: %w", o.base, err)
	}
	return items, nil
}

// work calls an [admin.Work], and calls handler for every answer about its progress.
func work[A any](ctx context.Context, o *operator, path string, q any, handler func(A)) error {
	body, err := json.Marshal(q)
	if err != nil {
		return err
	}
	resp, err := o.send(ctx, http.MethodPost, path, body)
	if err != nil {
		return err
	}
	err = eachItem(resp, handler)
	if failed, ok := errors.AsType[*api.Error](err); ok {
		return failed
	}
	if err != nil {
		return fmt.Errorf("the answer of %s is incomplete: %w", o.base, err)
	}
	return nil
}

// eachItem calls handler for every item of a list when the item arrives. It closes the response.
func eachItem[A any](resp *http.Response, handler func(A)) error {
	defer resp.Body.Close()
	in := json.NewDecoder(resp.Body)
	for in.More() { // skips the brace, "items" and the bracket
		if t, err := in.Token(); err != nil || t == json.Delim('[') {
			break
		}
	}
	for in.More() {
		var item A
		if err := in.Decode(&item); err != nil {
			return err
		}
		handler(item)
	}
	return listEnd(in)
}

// listEnd reads the end of a list. It returns the error that the server sent after the items, if
// any.
func listEnd(in *json.Decoder) error {
	if _, err := in.Token(); err != nil {
		return err
	}
	if in.More() {
		if name, err := in.Token(); err != nil || name != "error" {
			return fmt.Errorf("unexpected %v: %w", name, err)
		}
		failed := new(api.Error)
		if err := in.Decode(failed); err != nil {
			return err
		}
		return failed
	}
	_, err := in.Token()
	return err
}

// send sends a request to the API. It returns the response if the status is 200. For any other
// status, it returns an error.
func (o *operator) send(ctx context.Context, method, path string, body []byte) (*http.Response, error) {
	return o.ask(ctx, method, api.Prefix+path, body)
}

// ask is [operator.send] for any path of the admin listener.
func (o *operator) ask(ctx context.Context, method, path string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, o.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	if method != http.MethodGet {
		req.Header.Set("Content-Type", "application/json")
	}
	if user, password, ok := strings.Cut(o.login.Reveal(), ":"); ok {
		req.SetBasicAuth(user, password)
	}
	if o.token != "" {
		req.Header.Set("Authorization", "Bearer "+o.token.Reveal())
	}
	resp, err := o.client.Do(req)
	if err != nil {
		return nil, o.requestError(err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	var f api.Failure
	if err := json.Unmarshal(text, &f); err != nil || f.Error == nil {
		return nil, fmt.Errorf("%s answered %s: %.200s", o.base, resp.Status, bytes.TrimSpace(text))
	}
	if f.Error.Code == api.CodeUnauthorized && o.token == "" && o.login == "" {
		return nil, fmt.Errorf("%w; show who you are with --login-file or --token-file", f.Error)
	}
	return nil, f.Error
}

// requestError explains why a request got no response. Its error wraps [ErrUnreachable] only if the
// dial failed. After any other error, dray may have executed the request.
func (o *operator) requestError(err error) error {
	if broken, ok := errors.AsType[*url.Error](err); ok {
		err = broken.Err // leaves out the URL, because the message has the address
	}
	if dial, ok := errors.AsType[*net.OpError](err); ok && dial.Op == "dial" {
		return fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	if errors.Is(err, io.EOF) {
		err = errors.New("connection closed")
	}
	return fmt.Errorf("no answer from %s, which may have received the request: %w", o.base, err)
}

func query(params url.Values) string {
	if len(params) == 0 {
		return ""
	}
	return "?" + params.Encode()
}

// print writes an answer as JSON if --json is set, otherwise as a table. writeTable writes the
// rows, with tabs between the columns.
func (o *operator) print(answer any, writeTable func(w io.Writer)) error {
	if o.json {
		out := json.NewEncoder(o.stdout)
		out.SetIndent("", "  ")
		return out.Encode(answer)
	}
	w := tabwriter.NewWriter(o.stdout, 0, 0, 2, ' ', 0)
	writeTable(w)
	return w.Flush()
}

// size formats a number of bytes with a decimal unit, such as 1.5 GB.
func size(n int64) string { return api.Size(n) }
