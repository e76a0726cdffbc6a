package ctl

import (
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"dray/cmd/dray/usage"
	"dray/mirror/admin/api"
)

// savingsQuery has those flags of the command "dray stats" that are about savings.
type savingsQuery struct {
	savings, csv bool
	days         int
}

func (q *savingsQuery) flags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&q.savings, "savings", false, "print how much dray has saved, in US dollars")
	cmd.Flags().IntVar(&q.days, "days", 0, "with --savings: number of days to count, including today (default: 30)")
	cmd.Flags().BoolVar(&q.csv, "csv", false, "with --savings: print CSV, with the column names of FOCUS")
	cmd.MarkFlagsMutuallyExclusive("csv", "json")
}

func (q *savingsQuery) show(ctx context.Context, o *operator) error {
	params := url.Values{}
	switch {
	case q.days < 0:
		return fmt.Errorf("--days %d: not a number of days; %w", q.days, usage.Err)
	case q.days > 0:
		params.Set("days", strconv.Itoa(q.days))
	}
	table := savingsTable
	if q.csv {
		table = savingsCSV
	}
	return show(ctx, o, "savings", params, table)
}

func savingsTable(w io.Writer, s api.Savings) {
	fmt.Fprintf(w, "from %s to %s, %.1f days\n", s.From.Format(time.RFC3339), s.To.Format(time.RFC3339), s.Days)
	fmt.Fprintf(w, "list prices of %s, or those of the configuration, in US dollars per GiB\n\n", s.PricesOf)
	fmt.Fprintln(w, "UPSTREAM\tSENT\tFETCHED\tAVOIDED\tPATH\tPRICE\tSAVED\tTIME SAVED")
	for _, up := range s.Upstreams {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%.2f\t%s\n", up.Upstream, size(up.SentBytes), size(up.FetchedBytes), size(up.AvoidedBytes),
			unknownText(up.Path), priceText(up.PriceUSD), up.AvoidedUSD, timeSaved(up))
	}
	fmt.Fprintln(w, "\nCOST\tQUANTITY\tPRICE\tUSD")
	for _, c := range s.Costs {
		fmt.Fprintf(w, "%s\t%.3f %s\t%s\t%.2f\n", c.Name, c.Quantity, c.Unit, number(c.PriceUSD), c.USD)
	}
	fmt.Fprintf(w, "\nsaved\t%.2f\ncosts\t%.2f\nnet\t%.2f\n", s.AvoidedUSD, s.CostUSD, s.NetUSD)
	for i, u := range s.Unknown {
		if i == 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "unknown: %s\n", u)
	}
}

func unknownText(s string) string {
	if s == "" {
		return "unknown"
	}
	return s
}

func priceText(p *float64) string {
	if p == nil {
		return "unknown"
	}
	return number(*p)
}

// number formats a price or a quantity with as many digits as it needs.
func number(p float64) string { return strconv.FormatFloat(p, 'f', -1, 64) }

// timeSaved says how much time clients saved, or why that is not known.
func timeSaved(up api.UpstreamSavings) string {
	if up.SavedSeconds == nil {
		return fmt.Sprintf("unknown, %d of 20 samples", up.Samples)
	}
	return fmt.Sprintf("%s at %s/s", time.Duration(*up.SavedSeconds*float64(time.Second)).Round(time.Second), size(int64(up.BytesPerSecond)))
}

// focus are the columns of CSV. All except the last are columns of FOCUS 1.3, the FinOps Open Cost
// and Usage Specification (https://focus.finops.org), which allows further columns with names that
// begin with x_.
var focus = []string{
	"ChargePeriodStart", "ChargePeriodEnd", "ChargeDescription", "ResourceName", "RegionId",
	"ConsumedQuantity", "ConsumedUnit", "ListUnitPrice", "ListCost", "BillingCurrency", "x_Estimate",
}

// savingsCSV writes a row for each upstream and each cost. Savings are negative, as credits are.
func savingsCSV(w io.Writer, s api.Savings) {
	out := csv.NewWriter(w)
	row := func(description, name string, quantity float64, unit string, price *float64, cost float64, estimate string) {
		unitPrice := ""
		if price != nil {
			unitPrice = number(*price)
		}
		_ = out.Write([]string{ // operator.print reports the errors of w
			s.From.Format(time.RFC3339), s.To.Format(time.RFC3339), description, name, s.Region,
			number(quantity), unit, unitPrice, strconv.FormatFloat(cost, 'f', 6, 64), "USD", estimate,
		})
	}
	_ = out.Write(focus)
	for _, up := range s.Upstreams {
		row("transfer avoided, path "+unknownText(up.Path), up.Upstream, float64(up.AvoidedBytes)/(1<<30), "GiB", up.PriceUSD, 0-up.AvoidedUSD, "avoided")
	}
	for _, c := range s.Costs {
		row(c.Name, "dray", c.Quantity, c.Unit, &c.PriceUSD, c.USD, "cost")
	}
	out.Flush()
}
