//! SIMPLEMIX: mix on-policy and off-policy preference pairs, train with DPO, evaluate.
