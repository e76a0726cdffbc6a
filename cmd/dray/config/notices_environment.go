package config

import (
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
)

// ownPrefix begins the names of dray's own variables.
const ownPrefix = "DRAY_"

// testPrefix begins the names of variables that dray's tests read.
const testPrefix = ownPrefix + "TEST_"

// serviceVariable matches the variables that Kubernetes sets in every container of a namespace for
// a Service called dray or dray-something (Kubernetes documentation, "Discovering services",
// environment variables).
var serviceVariable = regexp.MustCompile(`^DRAY_(?:[A-Z0-9_]+_)?(?:SERVICE_HOST|SERVICE_PORT(?:_[A-Z0-9_]+)?|PORT_[0-9]+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)$`)

// UnknownVariables returns a notice for each variable whose name looks like dray's, but that dray
// does not read.
func UnknownVariables(environ []string, cfg Config) (notices []string) {
	vars, known := variables(environ), map[string]int{}
	for i := range reflect.TypeFor[Environment]().NumField() {
		known[reflect.TypeFor[Environment]().Field(i).Tag.Get("env")] = i
	}
	for _, u := range cfg.Upstreams {
		if name := u.Credentials.PasswordEnv; name != "" {
			known[name] = 0
		}
	}
	for _, name := range slices.Sorted(maps.Keys(vars)) {
		_, isKnown := known[name]
		switch {
		case isKnown, !strings.HasPrefix(name, ownPrefix), strings.HasPrefix(name, testPrefix), serviceVariable.MatchString(name):
		case strings.HasSuffix(name, "_PORT") && strings.Contains(vars[name], "://"): // Kubernetes also sets this variable: DRAY_PORT=tcp://10.0.0.1:5000
		default:
			notices = append(notices, fmt.Sprintf("%s: dray does not read this variable%s", name, nearest(name, known)))
		}
	}
	return notices
}

// nearest returns a hint at the known variable that the user may mean by a name: the same name
// without DRAY_, a similar name, or a longer name that begins with the given one. If there is none,
// the hint says where dray lists its variables.
func nearest(name string, known map[string]int) string {
	plain := strings.TrimPrefix(name, ownPrefix)
	if _, bare := known[plain]; bare {
		return fmt.Sprintf("; did you mean %s?", plain)
	}
	if similar := suggestion(name, known); similar != "" {
		return similar
	}
	for _, longer := range slices.Sorted(maps.Keys(known)) {
		if strings.HasPrefix(longer, name) {
			return fmt.Sprintf("; did you mean %s?", longer)
		}
	}
	return "; dray config reference lists the variables that it reads."
}
