topgb data synth records --prefix train   # and validate and choose
topgb train demo --data 'records/train*' --validate 'records/validate*' --out run
topgb build run --out ema-weights.safetensors
topgb build run --no-use-ema --out raw-weights.safetensors
topgb train demo --data 'records/train*' --out second-run --set model.aggregator=gated_dbof   # and its sizes
topgb build second-run --out gated-bag-of-frames.safetensors
topgb model ensemble ema-weights.safetensors gated-bag-of-frames.safetensors --out ensemble.safetensors
topgb distill ensemble.safetensors 'records/train*' --out teacher-scores
topgb train demo --data 'records/train*' --teacher teacher-scores --out student-run   # and the second model's --set
topgb model shrink ema-weights.safetensors gated-bag-of-frames.safetensors --budget 2.5MB --data 'records/choose*' \
  --out shrunk.safetensors
topgb model quantize ensemble.safetensors --method int8 --out quantized/int8.safetensors   # and every other method
topgb predict ema-weights.safetensors 'records/validate*' --out predictions.csv
topgb report run second-run shrunk.safetensors 'records/validate*' --out report.html
