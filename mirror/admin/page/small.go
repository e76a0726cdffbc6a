package page

import (
	"time"

	"github.com/a-h/templ"
)

// The functions below call small templates that many places use. If these places called the
// templates, the compiler would inline a template at each place, which adds 2 kB to the program
// each time.

//go:noinline
func mark(kind, text string) templ.Component { return state(kind, text) }

//go:noinline
func sinceTime(at, now time.Time) templ.Component { return since(at, now) }

//go:noinline
func momentOf(at time.Time) templ.Component { return moment(at) }

//go:noinline
func nothing(text string) templ.Component { return empty(text) }

//go:noinline
func barOf(all []share) templ.Component { return bar(all) }

//go:noinline
func fromShares(all []share) templ.Component { return from(all) }

//go:noinline
func row(labels []string, texts ...string) templ.Component { return cells(labels, texts...) }

//go:noinline
func head(labels ...string) templ.Component { return heads(labels...) }

//go:noinline
func figureList(all []figure) templ.Component { return figures(all) }

//go:noinline
func axisOf(c *chart) templ.Component { return axis(c) }

//go:noinline
func userCell(user string) templ.Component { return userOf(user) }

//go:noinline
func plainCell(label, text string) templ.Component { return plain(label, text) }

//go:noinline
func choice(path, text, kind string, current bool) templ.Component {
	return choiceOf(path, text, kind, current)
}

//go:noinline
func imageLink(upstream, repository, reference string) templ.Component {
	return linkOf(upstream, repository, reference)
}

//go:noinline
func legend(class, text string) templ.Component { return legendOf(class, text) }
