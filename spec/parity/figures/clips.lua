-- Norms of three gradients of moderate size, of orders 1, 2, 3 and infinity; their 2-norm when cut to 0.75.
-- By PyTorch 2.13.0: spec/parity/make.py.
return {
{kind="clips",f32={norms={15.26953125,4.367867946624756,3.0464553833007812,1.904296875},cut=2.530717134475708},f64={norms={15.26953125,4.367867896181854,3.0464551832036983,1.904296875},cut=2.530717016550623}},
}
