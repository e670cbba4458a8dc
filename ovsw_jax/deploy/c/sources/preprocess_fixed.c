void @name@_preprocess(const uint8_t *pixels, int16_t *input)
{
    static const int32_t scale[@count@] = {@scale@};
    static const int64_t offset[@count@] = {@offset@};
    for (size_t i = 0; i < @NAME@_INPUT_SIZE; ++i) {
        const int64_t x = (pixels[i] * (int64_t)scale[i % @count@] + offset[i % @count@]) >> @shift@;
        input[i] = (int16_t)(x > INT16_MAX ? INT16_MAX : x < -INT16_MAX ? -INT16_MAX : x);
    }
}
