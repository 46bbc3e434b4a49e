;; add(x, y): the default entry when ADD_X and ADD_Y are set; the sum modulo 2^64, read as unsigned.
(module
  (func (export "add") (param $x i64) (param $y i64) (result i64)
    (i64.add (local.get $x) (local.get $y))))
