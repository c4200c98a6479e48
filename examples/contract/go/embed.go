// Embeds token ids as a folder of bge-export says: embed FOLDER libonnxruntime.so < token-ids > vectors.
// Checked with: bge-export check-contract --token-ids.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"

	ort "github.com/yalue/onnxruntime_go"
)

type contract struct {
	Embedding struct {
		Width     int
		Pooling   string
		Normalize bool
	}
	Files []struct {
		Target, File string
		Inputs       []string
		Outputs      map[string]string
	}
}

func must[T any](value T, err error) T {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return value
}

func pooled(states []float32, width int, pooling string) []float32 {
	count := len(states) / width
	if pooling == "cls" {
		return states[:width]
	} else if pooling == "last" {
		return states[(count-1)*width:]
	}
	mean := make([]float32, width)
	for i, value := range states {
		mean[i%width] += value / float32(count)
	}
	return mean
}

func main() {
	folder := os.Args[1]
	ort.SetSharedLibraryPath(os.Args[2])
	must(0, ort.InitializeEnvironment())
	var said contract
	must(0, json.Unmarshal(must(os.ReadFile(filepath.Join(folder, "embedding.json"))), &said))

	var session *ort.DynamicAdvancedSession
	var inputs []string
	for _, file := range said.Files {
		for name, kind := range file.Outputs {
			if file.Target == "onnx-fp32" && kind == "token states" {
				path := filepath.Join(folder, file.File)
				inputs = file.Inputs
				session = must(ort.NewDynamicAdvancedSession(path, inputs, []string{name}, nil))
			}
		}
	}

	for lines := bufio.NewReader(os.Stdin); ; {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return
		}
		var ids []int64
		must(0, json.Unmarshal(line, &ids))
		mask := make([]int64, len(ids))
		for i := range mask {
			mask[i] = 1
		}
		rows := map[string][]int64{"input_ids": ids, "attention_mask": mask, "token_type_ids": make([]int64, len(ids))}
		var given []ort.Value
		for _, name := range inputs {
			given = append(given, must(ort.NewTensor(ort.NewShape(1, int64(len(ids))), rows[name])))
		}

		outputs := []ort.Value{nil}
		must(0, session.Run(given, outputs))
		states := outputs[0].(*ort.Tensor[float32]).GetData()
		vector := append([]float32{}, pooled(states, said.Embedding.Width, said.Embedding.Pooling)...)
		norm := 0.0
		for _, value := range vector {
			norm += float64(value) * float64(value)
		}
		for i := range vector {
			if said.Embedding.Normalize {
				vector[i] /= float32(math.Sqrt(norm))
			}
		}
		fmt.Println(string(must(json.Marshal(vector))))
	}
}
