// What a Go program (and Grafana's plugin) does over HTTP. Prints one JSON object of what it saw; the test compares it.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
)

type seen struct {
	Ping      bool     `json:"ping"`
	Timezone  string   `json:"timezone"`
	Rows      []string `json:"rows"`
	Streamed  int      `json:"streamed"`
	Empty     int      `json:"empty"`
	Code      int32    `json:"code"`
	MidStream int32    `json:"mid_stream"`
	Parameter string   `json:"parameter"`
	Deadline  bool     `json:"deadline"`
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func code(err error) int32 {
	var exception *clickhouse.Exception
	if errors.As(err, &exception) {
		return exception.Code
	}
	return 0
}

func drain(ctx context.Context, conn clickhouse.Conn, query string) (int, error) {
	rows, err := conn.Query(ctx, query)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	count := 0
	for rows.Next() {
		count++
	}
	return count, rows.Err()
}

func run(address, database, table string, compression clickhouse.CompressionMethod) seen {
	ctx := context.Background()
	conn, err := clickhouse.Open(&clickhouse.Options{
		Addr:        []string{address},
		Protocol:    clickhouse.HTTP,
		Auth:        clickhouse.Auth{Database: database, Username: "default"},
		Compression: &clickhouse.Compression{Method: compression},
	})
	must(err)
	defer conn.Close()
	must(conn.Ping(ctx))
	out := seen{Ping: true}
	version, err := conn.ServerVersion()
	must(err)
	out.Timezone = version.Timezone.String()
	must(conn.Exec(ctx, "CREATE TABLE "+table+` (
		a UInt32, b LowCardinality(String), c Array(Float32), d Nullable(Int64), e DateTime64(6, 'UTC'), f Map(String, UInt8), g UUID, h Bool
	) ENGINE = MergeTree ORDER BY a SETTINGS non_replicated_deduplication_window = 100`))
	token := clickhouse.Context(ctx, clickhouse.WithSettings(clickhouse.Settings{"insert_deduplication_token": "one", "async_insert": 0}))
	for i := 0; i < 2; i++ {
		batch, err := conn.PrepareBatch(token, "INSERT INTO "+table)
		must(err)
		for n := uint32(1); n <= 3; n++ {
			value := int64(n) * 10
			must(batch.Append(n, "low", []float32{1.5, float32(n)}, &value, time.Unix(int64(n), 1000).UTC(), map[string]uint8{"k": uint8(n)},
				"00000000-0000-0000-0000-00000000000"+fmt.Sprint(n), n%2 == 0))
		}
		must(batch.Send())
	}
	rows, err := conn.Query(ctx, "SELECT a, b, c, d, e, f, g, h FROM "+table+" ORDER BY a")
	must(err)
	for rows.Next() {
		var a uint32
		var b, g string
		var c []float32
		var d *int64
		var e time.Time
		var f map[string]uint8
		var h bool
		must(rows.Scan(&a, &b, &c, &d, &e, &f, &g, &h))
		out.Rows = append(out.Rows, fmt.Sprint(a, b, c, *d, e.UnixMicro(), f["k"], g, h))
	}
	must(rows.Err())
	must(conn.QueryRow(ctx, "SELECT {name:String}", clickhouse.Named("name", "o'neil\t\\")).Scan(&out.Parameter))
	out.Streamed, err = drain(ctx, conn, "SELECT number FROM numbers(200000)")
	must(err)
	out.Empty, err = drain(ctx, conn, "SELECT number FROM numbers(10) WHERE number > 10")
	must(err)
	_, err = drain(ctx, conn, "SELECT * FROM nowhere")
	out.Code = code(err)
	_, err = drain(ctx, conn, "SELECT throwIf(number = 150000) FROM numbers(200000) SETTINGS max_block_size = 10000, max_threads = 1")
	out.MidStream = code(err)
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	begun := time.Now()
	_, err = drain(short, conn, "SELECT sum(cityHash64(number)) FROM numbers(1000000000000)")
	out.Deadline = err != nil && time.Since(begun) < 30*time.Second
	return out
}

func main() {
	address, database := os.Args[1], os.Args[2]
	result := map[string]seen{
		"plain": run(address, database, "go_plain", clickhouse.CompressionNone),
		"gzip":  run(address, database, "go_gzip", clickhouse.CompressionGZIP),
	}
	must(json.NewEncoder(os.Stdout).Encode(result))
}
